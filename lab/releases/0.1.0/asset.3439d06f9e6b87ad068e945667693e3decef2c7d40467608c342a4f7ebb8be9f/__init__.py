"""What CloudFormation has no resource type for. Uploaded as it is: nothing but boto3 in it."""
