"""Looking into the past: any instant's state, what lies between two instants, and why something is as it is."""
