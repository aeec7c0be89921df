"""What validate is made of: the measures, the suite of expectations over them, the Data Docs."""
