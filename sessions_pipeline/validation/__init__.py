"""Defines a valid session, and reads each record's text into values or into the reasons why it is rejected."""
