"""Work on a Ray cluster from outside: submit a command as a job, bring its results back, check every node."""
