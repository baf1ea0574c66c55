"""What a folder holds, and whether its actions agree with what the pictures show."""
