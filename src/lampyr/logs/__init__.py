"""What functions and the platform have said: kept in files, one line of JSON each, by one writer, for any reader."""
