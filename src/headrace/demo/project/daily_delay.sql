SELECT
    clean.origin,
    airports.name AS airport,
    clean.carrier,
    clean.day,
    count(*) AS flights,
    count(*) FILTER (clean.dep_delay IS NULL) AS cancelled,
    round(avg(clean.dep_delay), 1) AS mean_delay,
    max(clean.dep_delay) AS worst_delay
FROM clean
LEFT JOIN airports ON airports.faa = clean.origin
GROUP BY ALL
