"""The doorman: decides one request. It may look in the books that `meter` keeps."""
