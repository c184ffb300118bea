"""`e3rl replay`: what healing did to a response, from the log that `e3rl serve --healing-log` wrote.

log       a response's log read back: its choices and their draws
terminal  shows it on a terminal; `page`, as one HTML file
cli       the command
"""
