"""From depth to three dimensions: points, surfaces, cameras and the views between them."""
