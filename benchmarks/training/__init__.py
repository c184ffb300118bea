"""What training with erasable rollouts brings and costs."""
