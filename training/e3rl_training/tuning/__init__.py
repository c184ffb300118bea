"""`e3rl tune`: healing settings that pay on a model and a task, searched on some problems and judged on others.

space    what is searched, and random settings out of it
search   successive halving: many settings on few problems, the best of them on more; pure
measures from samples to gains over plain sampling at the same price
report   the report for a reader
run      all of it in order; `cli`, the command
"""
