"""A process of the toy graph: two nodes in one."""

from toys import node

if __name__ == "__main__":
    node.main("policy", "steering")
