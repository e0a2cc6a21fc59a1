"""The only home of infrastructure: Ray, Optuna, MLflow and S3."""
