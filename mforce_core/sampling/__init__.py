"""From noise to tokens: noise levels of the two streams, guidance and the rollout."""
