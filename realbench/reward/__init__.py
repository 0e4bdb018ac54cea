"""What scorers, the server and the trainers share: a reward of components."""
