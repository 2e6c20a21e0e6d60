for (const button of document.querySelectorAll('button[data-copy]')) button.onclick = async () => {
  const text = document.getElementById(button.dataset.copy).textContent;
  try { await navigator.clipboard.writeText(text); button.textContent = 'Copied'; }
  catch { getSelection().selectAllChildren(document.getElementById(button.dataset.copy)); }
};
for (const table of document.querySelectorAll('table.sortable')) for (const head of table.querySelectorAll('th'))
  head.onclick = () => {
    const column = head.cellIndex, body = table.tBodies[0], down = head.dataset.down !== '1';
    const key = row => { const cell = row.cells[column]; return cell.dataset.value ?? cell.textContent; };
    const inWords = (a, b) => isNaN(a) || isNaN(b) ? String(a).localeCompare(b, undefined, {numeric: true}) : 0;
    const compare = (a, b) => (a - b) || inWords(a, b);
    const rows = [...body.rows].sort((a, b) => compare(key(a), key(b)) * (down ? 1 : -1));
    head.dataset.down = down ? '1' : '0';
    body.append(...rows);
  };
