SELECT count(*) FILTER (fate = 'counted'), count(*) FILTER (fate = 'late'), count(*) FILTER (fate = 'not_shown'),
    count(*) FILTER (fate = 'taken_back'), count(*) FILTER (is_label), count(*) FILTER (is_first AND NOT is_label)
FROM answers;
