"""The texts of ``rescue plan``, from what the reader of the disk found. Pure: nothing here reads or writes a file."""
