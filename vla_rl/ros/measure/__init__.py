"""What looks at the graph from outside: listeners, stages for benches and evaluation, fault injection and fuzz."""
