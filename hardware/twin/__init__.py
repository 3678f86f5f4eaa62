"""A digital twin of an arm on a Feetech servo bus: the real protocol on a pseudo-terminal, any body behind it."""
