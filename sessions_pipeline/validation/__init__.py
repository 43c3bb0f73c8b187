"""What a valid session is: the model of the schema, and one pass over a record that gives values or reasons."""
