"""Train video models that recognise what people do with objects, when most of the actions are rare."""
