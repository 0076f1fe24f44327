"""The phantom's renderer: from a random stream to a chest X-ray with exact masks. Numpy and OpenCV only."""
