"""The Redis of a cluster: fake or real, its process and its disk, and the lines that lead there."""
