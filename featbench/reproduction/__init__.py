"""A published table measured anew, judged and printed."""
