"""Servers as processes of their own: how they are started, told what to do, and heard of."""
