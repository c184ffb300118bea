"""`e3rl calibrate`: what is normal for a model on some prompts, and the threshold that erases a wanted share of it.

sampling   answers from an engine in shadow mode: their text, and the score of each segment
measures   from scores to a profile and a report, and from grades to how well U tells wrong answers: pure
report     the report as text
run        all of it in order; `cli`, the command
"""
