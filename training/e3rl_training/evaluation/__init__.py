"""`e3rl eval`: what healing buys per token on a model and a task, beside its rivals at the same price.

arms        what is compared: where draws come from, and the rule that makes one answer of them
rules       votes and choices over a pool of draws, with the tokens each would have paid
problems    what is asked, and `grading`, who is right about it
client      one request: a draw; `server`, a server of one's own
continuing  other ends of a draw: forks, and an oracle that erases what is wrong
lookahead   other ends again: where a draw is unsure, the one of several that goes on best
samples     every draw as a line of a file, which a run goes on from
statistics  bootstrap, pass@k, AUROC, curves over tokens
segments    U and erasures against the labels that generated tasks have; `streaming`, how erased text is seen
measures    from samples to figures; `markdown` and `plots` show them
run         all of it in order
"""
