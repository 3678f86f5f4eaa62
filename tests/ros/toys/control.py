"""A process of the toy graph."""

from toys import node

if __name__ == "__main__":
    node.main("control")
