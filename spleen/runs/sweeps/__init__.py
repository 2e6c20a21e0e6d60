"""Many runs: sweeps, searches and named studies."""
