"""One question in, one answer out: servers, limits, accounts and transcripts. Knows nothing of judging."""
