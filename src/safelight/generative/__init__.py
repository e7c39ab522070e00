"""What the subjects that draw pictures share: their data, and how they are trained."""
