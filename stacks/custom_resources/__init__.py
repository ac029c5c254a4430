"""What CloudFormation has no resource type for. The folder is uploaded as it is: nothing but boto3."""
