"""What `railswitch doctor` looks at: every check says what it saw, what follows, and what to do."""
