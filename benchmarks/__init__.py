"""Speed against stock vLLM, each with one command and its result as JSON."""
