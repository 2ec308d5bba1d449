-- One line a figure that a run measured on its way: a step of training has a loss, a learning_rate,
-- a grad_norm, tokens, trained_tokens and tokens_per_second, some a validation_loss and a probe.
-- Runs from before there were such objects have none.
CREATE VIEW run_metrics AS
SELECT run.id AS run_id,
       run.manifest->>'$.meta.stage' AS stage,
       figure.step, figure.name, figure.value, figure.seconds
FROM parquet.stored_metrics AS figure
JOIN edges ON edges.child = figure.object_id AND edges.role = 'run'
JOIN objects AS run ON run.id = edges.parent AND run.kind = 'run';
