"""Topics to types and back: thin nodes."""
