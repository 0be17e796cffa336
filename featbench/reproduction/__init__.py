"""A published table measured again, judged and printed."""
