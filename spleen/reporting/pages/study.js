const readouts = [...document.querySelectorAll('.readout')], idle = readouts.map(each => each.textContent);
const texts = JSON.parse(document.getElementById('readouts').textContent);
let lit = null, pinned = null;
const light = arm => {
  if (arm === lit) return;
  lit = arm;
  for (const each of document.querySelectorAll('.lit')) each.classList.remove('lit');
  document.body.classList.toggle('lighting', arm !== null);
  readouts.forEach((each, number) => { each.textContent = arm === null ? idle[number] : texts[arm]; });
  if (arm === null) return;
  for (const each of document.querySelectorAll(`[data-arm="${arm}"]`)) {
    each.classList.add('lit');
    if (each.matches('.lines g')) each.parentElement.append(each);  // above the others
  }
};
const pin = arm => {
  pinned = arm;
  for (const each of document.querySelectorAll('.arms li')) each.firstElementChild.ariaPressed = String(each.dataset.arm === arm);
  light(arm);
};
const armOf = event => event.target.closest?.('[data-arm]')?.dataset.arm ?? null;
document.addEventListener('pointerover', event => light(armOf(event) ?? pinned));
document.addEventListener('focusin', event => light(armOf(event) ?? pinned));
document.addEventListener('focusout', () => light(pinned));
document.addEventListener('click', event => {
  const arm = armOf(event);
  if (arm !== null && !event.target.closest('a')) pin(arm === pinned ? null : arm);
});
document.addEventListener('keydown', event => { if (event.key === 'Escape') pin(null); });
for (const list of document.querySelectorAll('.arms')) {  // one stop for the Tab key; arrows move within
  const buttons = [...list.querySelectorAll('button')];
  const moves = {ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1, Home: -Infinity, End: Infinity};
  buttons.forEach((button, number) => {
    button.tabIndex = number ? -1 : 0;
    button.onkeydown = event => {
      if (!(event.key in moves)) return;
      event.preventDefault();
      const next = buttons[Math.min(Math.max(number + moves[event.key], 0), buttons.length - 1)];
      for (const each of buttons) each.tabIndex = each === next ? 0 : -1;
      next.focus();
    };
  });
}
