"""`e3rl chat`: a chat on the terminal that shows what is erased.

conversation  the messages so far, and the next turn
page          an answer as text to print: pure
screen        shows an answer while it is drawn, on a terminal or into a pipe
cli           the command
"""
