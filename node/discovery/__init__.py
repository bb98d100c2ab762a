"""Finding the other machines of a new cluster, and its log, by a token: the client of the discovery protocols."""
