-- DuckDB views over the lake, one for each table, and the names of datasets.
--
--   duckdb -cmd "SET VARIABLE data_root = 'data/demo'" -init lake.sql
--
-- Without the variable the lake is `data` below the current folder; `s3://bucket/prefix` works after DuckDB's own
-- set-up of S3. Days are read as `start_date` from the paths; rows without a day have a null there. In Python:
--
--   lake = duckdb.connect()
--   lake.execute("SET VARIABLE data_root = 'data/demo'")
--   lake.execute(importlib.resources.files("sessions_pipeline.outputs").joinpath("lake.sql").read_text())

SET VARIABLE data_root = coalesce(getvariable('data_root'), 'data');
SET TimeZone = 'UTC';

-- Any table that is partitioned by day, by its name. A table that a job of its own makes has no view, because a view of
-- files that are not there yet can't be made: `FROM usage_of('daily_cost_by_project')`. The days are read as text and cast
-- here: before 1.5, DuckDB takes the folder of rows without a day for text that compares greater than any date.
CREATE OR REPLACE MACRO days_of(folder) AS TABLE
SELECT * REPLACE (try_cast(start_date AS DATE) AS start_date)
FROM read_parquet(
    -- A folder such as `start_date=20260131`, a second spelling of a day, is not the lake's.
    getvariable('data_root') || '/' || folder || '/start_date=*[-_]*/*.parquet',
    hive_partitioning = true,
    hive_types_autocast = false
);
CREATE OR REPLACE MACRO usage_of(folder) AS TABLE FROM read_parquet(
    getvariable('data_root') || '/' || folder || '/*/*.parquet',
    hive_partitioning = true
);
CREATE OR REPLACE MACRO file_of(folder) AS TABLE FROM read_parquet(
    getvariable('data_root') || '/' || folder || '/*.parquet'
);

-- Views of the tables, written by docs/generate.py.
CREATE OR REPLACE VIEW raw_sessions AS FROM days_of('raw_sessions');
CREATE OR REPLACE VIEW sessions AS FROM days_of('sessions');
CREATE OR REPLACE VIEW rejected_sessions AS FROM days_of('rejected_sessions');
CREATE OR REPLACE VIEW session_feedback AS FROM days_of('session_feedback');
CREATE OR REPLACE VIEW experiment_summary AS FROM days_of('experiment_summary');
CREATE OR REPLACE VIEW session_attributes AS FROM days_of('session_attributes');
CREATE OR REPLACE VIEW daily_cost_by_reference_dataset AS FROM days_of('daily_cost_by_reference_dataset');
CREATE OR REPLACE VIEW daily_cost_by_attribute AS FROM days_of('daily_cost_by_attribute');
CREATE OR REPLACE VIEW weekly_cost_by_reference_dataset AS FROM file_of('weekly_cost_by_reference_dataset');
CREATE OR REPLACE VIEW monthly_cost_by_reference_dataset AS FROM file_of('monthly_cost_by_reference_dataset');
SET VARIABLE judge_cost_by_experiment = (
    SELECT if(
        count(*) > 0,
        'FROM days_of(''judge_cost_by_experiment'')',
        'SELECT NULL::VARCHAR AS id, NULL::VARCHAR AS tenant_id, NULL::VARCHAR AS reference_dataset_id, NULL::BIGINT AS run_count, NULL::BIGINT AS total_tokens, NULL::DECIMAL(38, 18) AS prompt_cost, NULL::DECIMAL(38, 18) AS completion_cost, NULL::DECIMAL(38, 18) AS total_cost, NULL::TIMESTAMPTZ AS stats_as_of, NULL::TIMESTAMPTZ AS read_at, NULL::DATE AS start_date WHERE false'
    )
    FROM glob(getvariable('data_root') || '/judge_cost_by_experiment/*/*.parquet')
);
CREATE OR REPLACE VIEW judge_cost_by_experiment AS FROM query(getvariable('judge_cost_by_experiment'));
-- End of the views.

-- What each experiment cost with its judges, US dollars. `judge_cost` is null where judges were not measured
-- (`is_measured` is false) or their cost is unknown, and `whole_cost` is null where one of the two is. Whether any were
-- measured is looked up when this file is run.
CREATE OR REPLACE VIEW experiment_costs AS
SELECT
    experiment.start_date,
    experiment.tenant_id,
    experiment.reference_dataset_id,
    experiment.id,
    experiment.name,
    experiment.total_cost AS own_cost,
    judges.total_cost AS judge_cost,
    experiment.total_cost + judges.total_cost AS whole_cost,
    judges.id IS NOT NULL AS is_measured
FROM experiment_summary AS experiment
LEFT JOIN judge_cost_by_experiment AS judges
    ON judges.tenant_id = experiment.tenant_id AND judges.id = experiment.id;

-- What datasets are called, one row for each that experiments ran against: the name that the API gives, else the one
-- that the latest experiment says (`extra.metadata.dataset_name`), else the id. `dataset` is for people to read and to
-- group by: where two datasets bear one name, the beginning of the id stands behind it. Whether the API has given names
-- yet is looked up when this file is run.
SET VARIABLE api_names = (
    SELECT if(
        count(*) > 0,
        'SELECT tenant_id, id, name FROM file_of(''reference_datasets'')',
        'SELECT NULL::VARCHAR AS tenant_id, NULL::VARCHAR AS id, NULL::VARCHAR AS name WHERE false'
    )
    FROM glob(getvariable('data_root') || '/reference_datasets/*.parquet')
);
CREATE OR REPLACE VIEW dataset_names AS
WITH
ran AS (SELECT DISTINCT tenant_id, reference_dataset_id FROM daily_cost_by_reference_dataset),
given AS (
    SELECT tenant_id, id AS reference_dataset_id, name
    FROM query(getvariable('api_names'))
    WHERE trim(name) <> ''
),
said AS (
    SELECT tenant_id, reference_dataset_id, arg_max(extra ->> '$.metadata.dataset_name', start_time) AS name
    FROM sessions ANTI JOIN given USING (tenant_id, reference_dataset_id)
    WHERE contains(extra, '"dataset_name"')
        AND json_type(extra, '$.metadata.dataset_name') = 'VARCHAR'
        AND trim(extra ->> '$.metadata.dataset_name') <> ''
    GROUP BY ALL
),
named AS (
    SELECT
        tenant_id,
        reference_dataset_id,
        coalesce(given.name, said.name, reference_dataset_id) AS name,
        left(reference_dataset_id, 8) AS short_id
    FROM ran
    LEFT JOIN given USING (tenant_id, reference_dataset_id)
    LEFT JOIN said USING (tenant_id, reference_dataset_id)
)
SELECT
    tenant_id,
    reference_dataset_id,
    name,
    CASE
        WHEN count(*) OVER (PARTITION BY name, short_id) > 1 THEN name || ' (' || reference_dataset_id || ')'
        WHEN count(*) OVER (PARTITION BY name) > 1 THEN name || ' (' || short_id || ')'
        ELSE name
    END AS dataset
FROM named;
