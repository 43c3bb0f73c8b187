"""What a session is: the model of the API's schema, the verdict on one record, the columns of every table. Pure."""
