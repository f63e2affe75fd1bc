"""What is measured, one part a file. A part takes the bench and adds its figures."""
