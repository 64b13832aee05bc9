"""What happened to a campaign, told in words: pure, from what is stored of it."""
