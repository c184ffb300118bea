"""The engines that drive the healer; each module here knows exactly one of them."""
