for (const button of document.querySelectorAll('button[data-copy]')) button.onclick = async () => {
  const text = document.getElementById(button.dataset.copy).textContent;
  try { await navigator.clipboard.writeText(text); button.textContent = 'Copied'; }
  catch { getSelection().selectAllChildren(document.getElementById(button.dataset.copy)); }
};
for (const table of document.querySelectorAll('table.sortable')) for (const head of table.querySelectorAll('th')) {
  const sort = () => {
    const column = head.cellIndex, body = table.tBodies[0], down = head.ariaSort !== 'ascending';
    const key = row => { const cell = row.cells[column]; return cell.dataset.value ?? cell.textContent; };
    const inWords = (a, b) => isNaN(a) || isNaN(b) ? String(a).localeCompare(b, undefined, {numeric: true}) : 0;
    const compare = (a, b) => ((a - b) || inWords(a, b)) * (down ? 1 : -1);
    const missing = value => value === '–';  // last, either way
    const rows = [...body.rows].map(row => [key(row), row]).sort(([a], [b]) => missing(a) - missing(b) || compare(a, b));
    for (const other of head.parentElement.cells) other.ariaSort = null;
    head.ariaSort = down ? 'ascending' : 'descending';
    body.append(...rows.map(([, row]) => row));
  };
  head.tabIndex = 0;
  head.onclick = sort;
  head.onkeydown = event => { if (event.key === 'Enter' || event.key === ' ') { event.preventDefault(); sort(); } };
}
