"""The command ``hoi-data split``: stratified parts for training, validation and test."""
