"""What each option of an axis does to the model: mirrors conf/."""
