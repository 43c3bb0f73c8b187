-- DuckDB views of the lake: one for each table, one of experiments' costs with their judges, and the names of datasets.
--
--   duckdb -cmd "SET VARIABLE data_root = 'data/demo'" -cmd ".read lake.sql"
--
-- Without the variable, the lake is `data` in the current folder. `s3://bucket/prefix` works once S3 is set up in
-- DuckDB. The day of a row is the column `start_date`, which comes from the path and is null for rows without a day.
-- In Python:
--
--   lake = duckdb.connect()
--   lake.execute("SET VARIABLE data_root = 'data/demo'")
--   lake.execute(importlib.resources.files("sessions_pipeline.outputs").joinpath("lake.sql").read_text())

SET VARIABLE data_root = coalesce(getvariable('data_root'), 'data');
SET TimeZone = 'UTC';

-- A pattern of files in the lake. In the path of the lake itself, the characters of patterns stand for themselves.
CREATE OR REPLACE MACRO in_lake(pattern) AS
regexp_replace(getvariable('data_root'), '([[*?])', '[\1]', 'g') || '/' || pattern;

-- A table that is partitioned by day, by its name. Days are read as text and cast here, because DuckDB before 1.5 takes
-- the name of the folder for rows without a day as text, which is greater than any date.
CREATE OR REPLACE MACRO days_of(folder) AS TABLE
SELECT * REPLACE (try_cast(start_date AS DATE) AS start_date)
FROM read_parquet(
    -- Leaves out folders such as `start_date=20260131`: another spelling of a day, which the lake does not use.
    in_lake(folder || '/start_date=*[-_]*/*.parquet'),
    hive_partitioning = true,
    hive_types_autocast = false
);
CREATE OR REPLACE MACRO usage_of(folder) AS TABLE FROM read_parquet(
    in_lake(folder || '/*/*.parquet'),
    hive_partitioning = true
);
CREATE OR REPLACE MACRO file_of(folder) AS TABLE FROM read_parquet(
    in_lake(folder || '/*.parquet')
);

-- The statement of each view. If a table has no files, such as one that is newer than the data, its view still has the
-- columns, so that the other views work, but querying it is an error that says what to do. Judges and datasets, which
-- may not have been read yet, have no rows instead. Which tables have files is looked up when lake.sql is run.
SET VARIABLE made = (
    SELECT list(DISTINCT name)
    FROM (
        SELECT parse_path(file)[-3] AS name FROM glob(in_lake('*/*/*.parquet'))
        UNION ALL
        SELECT parse_path(file)[-2] AS name FROM glob(in_lake('*/*.parquet'))
    )
);
CREATE OR REPLACE MACRO statement_of(source, name, columns) AS
CASE
    WHEN list_contains(getvariable('made'), name) THEN 'FROM ' || source || '(''' || name || ''')'
    ELSE 'SELECT unnest(NULL::STRUCT(' || columns || ')) WHERE '
        || CASE
            WHEN name IN ('judge_cost_by_experiment', 'reference_datasets') THEN 'false'
            ELSE 'error(''' || name || ' was never made; materialize it first, then run lake.sql again'')'
        END
END;

-- Views of the tables, written by docs/generate.py.
CREATE OR REPLACE VIEW raw_sessions AS FROM query(
    statement_of('days_of', 'raw_sessions', '
        session_id VARCHAR, tenant_id VARCHAR, start_time VARCHAR, payload VARCHAR, reading BIGINT, fetched_at
        TIMESTAMPTZ, start_date DATE
    ')
);
CREATE OR REPLACE VIEW sessions AS FROM query(
    statement_of('days_of', 'sessions', '
        id VARCHAR, tenant_id VARCHAR, default_dataset_id VARCHAR, reference_dataset_id VARCHAR, name VARCHAR,
        description VARCHAR, trace_tier VARCHAR, start_time TIMESTAMPTZ, end_time TIMESTAMPTZ,
        last_run_start_time TIMESTAMPTZ, last_run_start_time_live TIMESTAMPTZ, run_count BIGINT, total_tokens
        BIGINT, prompt_tokens BIGINT, completion_tokens BIGINT, test_run_number BIGINT, latency_p50 DOUBLE,
        latency_p99 DOUBLE, first_token_p50 DOUBLE, first_token_p99 DOUBLE, error_rate DOUBLE, streaming_rate
        DOUBLE, total_cost DECIMAL(38,18), prompt_cost DECIMAL(38,18), completion_cost DECIMAL(38,18), extra
        VARCHAR, feedback_stats VARCHAR, session_feedback_stats VARCHAR, run_facets VARCHAR, experiment_progress
        VARCHAR, unknown_fields VARCHAR, fetched_at TIMESTAMPTZ, stats_as_of TIMESTAMPTZ, problems VARCHAR[],
        missing_since TIMESTAMPTZ, start_date DATE
    ')
);
CREATE OR REPLACE VIEW rejected_sessions AS FROM query(
    statement_of('days_of', 'rejected_sessions', '
        session_id VARCHAR, tenant_id VARCHAR, start_time VARCHAR, reasons VARCHAR[], payload VARCHAR,
        fetched_at TIMESTAMPTZ, start_date DATE
    ')
);
CREATE OR REPLACE VIEW session_feedback AS FROM query(
    statement_of('days_of', 'session_feedback', '
        session_id VARCHAR, tenant_id VARCHAR, reference_dataset_id VARCHAR, scope VARCHAR, feedback_key
        VARCHAR, count BIGINT, average DOUBLE, standard_deviation DOUBLE, errors BIGINT, values VARCHAR,
        start_date DATE
    ')
);
CREATE OR REPLACE VIEW experiment_summary AS FROM query(
    statement_of('days_of', 'experiment_summary', '
        id VARCHAR, tenant_id VARCHAR, reference_dataset_id VARCHAR, name VARCHAR, start_time TIMESTAMPTZ,
        duration_seconds DOUBLE, run_count BIGINT, total_tokens BIGINT, total_cost DECIMAL(38,18), cost_per_run
        DECIMAL(38,18), latency_p50 DOUBLE, latency_p99 DOUBLE, error_rate DOUBLE, run_progress DOUBLE, scores
        STRUCT(feedback_key VARCHAR, "scope" VARCHAR, average DOUBLE, count BIGINT)[], start_date DATE
    ')
);
CREATE OR REPLACE VIEW session_attributes AS FROM query(
    statement_of('days_of', 'session_attributes', '
        session_id VARCHAR, tenant_id VARCHAR, reference_dataset_id VARCHAR, key VARCHAR, value VARCHAR,
        start_date DATE
    ')
);
CREATE OR REPLACE VIEW daily_cost_by_reference_dataset AS FROM query(
    statement_of('days_of', 'daily_cost_by_reference_dataset', '
        tenant_id VARCHAR, reference_dataset_id VARCHAR, session_count BIGINT, priced_session_count BIGINT,
        unpriced_session_count BIGINT, zero_cost_with_tokens_count BIGINT, run_count BIGINT, prompt_tokens
        BIGINT, completion_tokens BIGINT, total_tokens BIGINT, prompt_cost DECIMAL(38,18), completion_cost
        DECIMAL(38,18), total_cost DECIMAL(38,18), is_day_over BOOLEAN, start_date DATE
    ')
);
CREATE OR REPLACE VIEW daily_cost_by_attribute AS FROM query(
    statement_of('days_of', 'daily_cost_by_attribute', '
        tenant_id VARCHAR, reference_dataset_id VARCHAR, attribute VARCHAR, value VARCHAR, session_count BIGINT,
        priced_session_count BIGINT, unpriced_session_count BIGINT, zero_cost_with_tokens_count BIGINT,
        run_count BIGINT, prompt_tokens BIGINT, completion_tokens BIGINT, total_tokens BIGINT, prompt_cost
        DECIMAL(38,18), completion_cost DECIMAL(38,18), total_cost DECIMAL(38,18), start_date DATE
    ')
);
CREATE OR REPLACE VIEW weekly_cost_by_reference_dataset AS FROM query(
    statement_of('file_of', 'weekly_cost_by_reference_dataset', '
        week_start DATE, tenant_id VARCHAR, reference_dataset_id VARCHAR, session_count BIGINT,
        priced_session_count BIGINT, unpriced_session_count BIGINT, zero_cost_with_tokens_count BIGINT,
        run_count BIGINT, prompt_tokens BIGINT, completion_tokens BIGINT, total_tokens BIGINT, prompt_cost
        DECIMAL(38,18), completion_cost DECIMAL(38,18), total_cost DECIMAL(38,18), day_count BIGINT, is_complete
        BOOLEAN
    ')
);
CREATE OR REPLACE VIEW monthly_cost_by_reference_dataset AS FROM query(
    statement_of('file_of', 'monthly_cost_by_reference_dataset', '
        month_start DATE, tenant_id VARCHAR, reference_dataset_id VARCHAR, session_count BIGINT,
        priced_session_count BIGINT, unpriced_session_count BIGINT, zero_cost_with_tokens_count BIGINT,
        run_count BIGINT, prompt_tokens BIGINT, completion_tokens BIGINT, total_tokens BIGINT, prompt_cost
        DECIMAL(38,18), completion_cost DECIMAL(38,18), total_cost DECIMAL(38,18), day_count BIGINT, is_complete
        BOOLEAN
    ')
);
CREATE OR REPLACE VIEW reference_datasets AS FROM query(
    statement_of('file_of', 'reference_datasets', '
        id VARCHAR, tenant_id VARCHAR, name VARCHAR, description VARCHAR, data_type VARCHAR, created_at
        TIMESTAMPTZ, modified_at TIMESTAMPTZ, example_count BIGINT, baseline_experiment_id VARCHAR, metadata
        VARCHAR, read_at TIMESTAMPTZ, missing_since TIMESTAMPTZ
    ')
);
CREATE OR REPLACE VIEW daily_cost_by_project AS FROM query(
    statement_of('usage_of', 'daily_cost_by_project', '
        id VARCHAR, tenant_id VARCHAR, name VARCHAR, reference_dataset_id VARCHAR, run_count BIGINT,
        total_tokens BIGINT, prompt_cost DECIMAL(38,18), completion_cost DECIMAL(38,18), total_cost
        DECIMAL(38,18), is_exact BOOLEAN, read_at TIMESTAMPTZ, usage_date DATE
    ')
);
CREATE OR REPLACE VIEW judge_cost_by_experiment AS FROM query(
    statement_of('days_of', 'judge_cost_by_experiment', '
        id VARCHAR, tenant_id VARCHAR, reference_dataset_id VARCHAR, run_count BIGINT, total_tokens BIGINT,
        prompt_cost DECIMAL(38,18), completion_cost DECIMAL(38,18), total_cost DECIMAL(38,18), stats_as_of
        TIMESTAMPTZ, read_at TIMESTAMPTZ, start_date DATE
    ')
);
-- End of the views.

-- The cost of each experiment with its judges, in US dollars. `judge_cost` is null if the judges were not measured
-- (`is_measured` is false) or their cost is unknown; `whole_cost` is null if either of the two costs is.
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
-- By day, too: an experiment whose start time has changed has rows on two days.
LEFT JOIN judge_cost_by_experiment AS judges
    ON judges.tenant_id = experiment.tenant_id AND judges.id = experiment.id
    AND judges.start_date IS NOT DISTINCT FROM experiment.start_date;

-- The names of the datasets that experiments ran against, one row each: the name in the API, else the one in the latest
-- experiment's metadata (`extra.metadata.dataset_name`), else the id. `dataset` is a label to show and to group by: if
-- two datasets share a name, the beginning of the id is added to it.
CREATE OR REPLACE VIEW dataset_names AS
WITH
ran AS (SELECT DISTINCT tenant_id, reference_dataset_id FROM daily_cost_by_reference_dataset),
from_api AS (
    SELECT tenant_id, id AS reference_dataset_id, name
    FROM reference_datasets
    WHERE trim(name) <> ''
),
from_metadata AS (
    SELECT tenant_id, reference_dataset_id, arg_max(extra ->> '$.metadata.dataset_name', start_time) AS name
    FROM sessions ANTI JOIN from_api USING (tenant_id, reference_dataset_id)
    WHERE contains(extra, '"dataset_name"')
        AND json_type(extra, '$.metadata.dataset_name') = 'VARCHAR'
        AND trim(extra ->> '$.metadata.dataset_name') <> ''
    GROUP BY ALL
),
named AS (
    SELECT
        tenant_id,
        reference_dataset_id,
        coalesce(from_api.name, from_metadata.name, reference_dataset_id) AS name,
        left(reference_dataset_id, 8) AS short_id
    FROM ran
    LEFT JOIN from_api USING (tenant_id, reference_dataset_id)
    LEFT JOIN from_metadata USING (tenant_id, reference_dataset_id)
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
