"""What things cost (the paper's figure 8), and how good frames are; a module for each benchmark."""
