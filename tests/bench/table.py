"""Figures of many rounds, as people and programs read them."""

from statistics import median

def summary(results, subjects, reference, units):
    """results: a list of (measure, state, {subject: Result}), one for each round. Ratios are medians of those of each
    round, in which all subjects were measured one after another; above 1 the reference is better. Of what is measured in
    ms less is better, of all else more."""
    made = []
    for key in dict.fromkeys((measure, state) for measure, state, _ in results):
        rounds = [row for measure, state, row in results if (measure, state) == key]
        entry = {"measure": key[0], "state": key[1], "unit": units[key[0]], "subjects": {}}
        for subject in subjects:
            found = [row[subject] for row in rounds if subject in row]
            if not found:
                continue
            ratios = [row[reference].value / row[subject].value for row in rounds if subject in row and reference in row]
            if entry["unit"].startswith("ms"):
                ratios = [1 / ratio for ratio in ratios]
            entry["subjects"][subject] = {
                "median": median(r.value for r in found),
                "least": min(r.value for r in found), "most": max(r.value for r in found),
                "server_cpu": median(r.server for r in found), "client_cpu": median(r.client for r in found),
                "memory": max(r.memory for r in found), "ratio": median(ratios) if ratios else None, "rounds": len(found),
            }
        made.append(entry)
    return made


def show(heading, entries, reference, titles):
    lines = [f"\n{heading}",
             f"{'':30} {'':13} {'median':>9} {'least':>9} {'most':>9} {'x ' + reference:>9} "
             f"{'CPU s':>7} {'client':>7} {'MiB':>6}"]
    for entry in entries:
        for number, (subject, figures) in enumerate(entry["subjects"].items()):
            title = [f"{titles[entry['measure']]}, {entry['state']}", f"  ({entry['unit']})"][number] if number < 2 else ""
            ratio = f"{figures['ratio']:9.2f}" if figures["ratio"] else f"{'':9}"
            lines.append(f"{title:30} {subject:13} "
                         f"{figures['median']:9.0f} {figures['least']:9.0f} {figures['most']:9.0f} {ratio} "
                         f"{figures['server_cpu']:7.2f} {figures['client_cpu']:7.2f} {figures['memory'] >> 20:6}")
    return "\n".join(lines)
